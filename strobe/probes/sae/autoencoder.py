"""`SparseAutoencoder`: a trained dictionary of features at one place of one model. It is frozen and remembers no data.

    x -> f = activation((norm(x) - b_dec) W_enc + b_enc) -> norm^-1(f W_dec + b_dec)

Ours have a decoder of unit rows, so that a feature's activation is the length of what it adds, in the units of the
activation. Of one made elsewhere `W_dec` stays as it came and `decoder` has its rows at unit length.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from strobe.probes.sae.activation import Kind, activate
from strobe.probes.sae.site import Site

Norm = Literal["none", "layer_norm", "constant_norm_rescale"]
_EPS = 1e-5


class Factors(NamedTuple):
    """Rank-1 dictionaries of a matrix state [key, value]: feature i reads ``enc_key_i^T S enc_value_i`` and writes
    ``dec_key_i dec_value_i^T``, in the manner of WriteSAE (arXiv:2605.12770, of which we know the abstract). Each is
    [d_sae, key or value].
    """

    enc_key: Tensor
    enc_value: Tensor
    dec_key: Tensor
    dec_value: Tensor

    def weights(self) -> tuple[Tensor, Tensor]:
        """(W_enc [key*value, d_sae], W_dec [d_sae, key*value]): the outer products, flattened."""
        enc = torch.einsum("fk,fv->kvf", self.enc_key, self.enc_value).flatten(0, 1)
        return enc, torch.einsum("fk,fv->fkv", self.dec_key, self.dec_value).flatten(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseAutoencoder:
    """See the module. `hook_name`, `head`: where it reads (`Site`). `model`, `model_hash`: whose activations; the hash
    is empty for one made elsewhere, which then cannot be checked. `k`: of TopK. `threshold` [d_sae]: of JumpReLU and
    BatchTopK. `normalize`: of the input, SAELens's ``normalize_activations``. `scale_by_decoder_norm`: pre-activations
    times, decoded features over, the norm of the decoder's row (SAELens's ``rescale_acts_by_decoder_norm``).
    `state_shape`: of a matrix state before it was flattened. `factors`: of rank-1 atoms. `info`: what else is known.

    Raises ValueError where shapes do not fit, a number is missing, or a weight is not finite.
    """

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]
    kind: Kind
    hook_name: str
    model: str
    model_hash: str = ""
    k: int | None = None
    threshold: Float[Tensor, " d_sae"] | None = None
    head: int | None = None
    state_shape: tuple[int, ...] | None = None
    normalize: Norm = "none"
    subtract_b_dec: bool = True
    scale_by_decoder_norm: bool = False
    factors: Factors | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def d_in(self) -> int:
        """Width of what it reads."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def decoder(self) -> Float[Tensor, "d_sae d_in"]:
        """The direction of each feature, at unit length."""
        return F.normalize(self.W_dec, dim=1)

    @property
    def site(self) -> Site:
        """Where it reads."""
        return Site(self.hook_name, self.head)

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """What the activation function is given. `x` is cast to the dtype of the weights."""
        x, _, _ = self._normalized(x)
        pre = (x - self.b_dec if self.subtract_b_dec else x) @ self.W_enc + self.b_enc
        return pre * self.W_dec.norm(dim=-1) if self.scale_by_decoder_norm else pre

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Features of `x`, not negative. Raises ValueError for another width."""
        return activate(self.pre_activations(x), self.kind, k=self.k, threshold=self.threshold)

    def decode(
        self, features: Float[Tensor, "*batch d_sae"], like: Float[Tensor, "*batch d_in"] | None = None
    ) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction. `like`: what was encoded; only where `normalize` is not "none", to undo it. Raises
        ValueError where it is missing."""
        out = self._times_decoder(features) + self.b_dec
        if self.normalize == "none":
            return out
        if like is None:
            raise ValueError(f"features were to be decoded; normalize={self.normalize!r} is undone with `like`: give x")
        _, scale, shift = self._normalized(like)
        return out / scale if self.normalize == "constant_norm_rescale" else out * scale + shift

    def reconstruct(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """``decode(encode(x))``."""
        return self.decode(self.encode(x), x)

    def written(
        self, amounts: Float[Tensor, "*batch some"], features: list[int], x: Float[Tensor, "*batch d_in"]
    ) -> Float[Tensor, "*batch d_in"]:
        """What `amounts` more of `features` add to `x`: the decoder without its bias, in the units of `x`."""
        rows = self.W_dec[features]
        if self.scale_by_decoder_norm:
            rows = F.normalize(rows, dim=1)
        out = amounts.to(rows.dtype) @ rows
        if self.normalize == "none":
            return out
        _, scale, _ = self._normalized(x)
        return out / scale if self.normalize == "constant_norm_rescale" else out * scale

    def check(self, model: Any, hook_name: str | None = None) -> None:
        """Raises ValueError, with the reason, if this is not of `model` (its weights, width) or not of `hook_name`."""
        if hook_name is not None and hook_name != self.hook_name:
            raise ValueError(
                f"an autoencoder of {hook_name!r} was asked for; this one is of {self.hook_name!r}: the two are "
                f"different spaces. Train one at {hook_name!r}"
            )
        if self.model_hash and self.model_hash != model.weights_hash():
            raise ValueError(
                f"the autoencoder belongs to {self.model} with weights {self.model_hash[:12]}; this is "
                f"{model.model_name} with weights {model.weights_hash()[:12]}. Use the model it was trained on, or "
                "train it again"
            )
        shape = Site.of(model, self.hook_name, self.head).shape(model)
        width = 1
        for size in shape:
            width *= size
        if width != self.d_in:
            raise ValueError(
                f"the autoencoder reads {self.d_in} numbers at {self.hook_name!r}; {model.model_name} has {width} "
                f"there (shape {shape}). Use one that was trained on this model"
            )

    def check_features(self, features: Iterable[int]) -> list[int]:
        """`features` as a list. Raises IndexError for one that does not exist."""
        found = [int(i) for i in features]
        if bad := [i for i in found if not 0 <= i < self.d_sae]:
            raise IndexError(
                f"feature {bad[0]} was asked for; this autoencoder has 0 to {self.d_sae - 1}; choose one of those"
            )
        return found

    def weights_hash(self) -> str:
        """SHA-256 of its numbers, as float32, and of what decides their meaning. Storing in fewer bits changes it, so
        make `rounded` first."""
        digest = hashlib.sha256(
            repr((self.kind, self.k, self.normalize, self.subtract_b_dec, self.scale_by_decoder_norm)).encode()
        )
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
            tensor = getattr(self, name)
            if tensor is not None:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def rounded(self, dtype: torch.dtype) -> "SparseAutoencoder":
        """The same with every number (of `factors`, where it has them) rounded to `dtype`, held in the dtype it has."""

        def rounded(x: Tensor) -> Tensor:
            return x.to(dtype).to(x.dtype)

        biases = {n: rounded(t) for n in ("b_enc", "b_dec", "threshold") if (t := getattr(self, n)) is not None}
        if self.factors is not None:
            factors = Factors(*map(rounded, self.factors))
            W_enc, W_dec = factors.weights()
            return replace(self, W_enc=W_enc, W_dec=W_dec, factors=factors, **biases)
        return replace(self, W_enc=rounded(self.W_enc), W_dec=rounded(self.W_dec), **biases)

    def flattened(self) -> "SparseAutoencoder":
        """The same features as vectors of the flattened state, which SAELens can read."""
        return replace(self, factors=None)

    def to(self, device: Any) -> "SparseAutoencoder":
        """The same on `device`."""
        moved = {n: t.to(device) for n, t in vars(self).items() if isinstance(t, Tensor)}
        factors = None if self.factors is None else Factors(*(t.to(device) for t in self.factors))
        return replace(self, **moved, factors=factors)

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write a SAELens directory (`strobe.probes.sae.saelens`), whole or not at all; returns it.

        Raises ValueError if `dtype` would round the numbers: make `rounded` first, measure that, and save it.
        """
        from strobe.probes.sae.saelens import write_directory

        return write_directory(self, folder, dtype=dtype)

    @classmethod
    def load(cls, folder: str | Path, model: Any = None, *, hook_name: str | None = None) -> "SparseAutoencoder":
        """Read a SAELens directory, ours or not, in float32; with `model` (and `hook_name`) it is checked against them.

        Raises ValueError for a directory that is not one, is damaged, is of an architecture we do not have, or does
        not belong.
        """
        from strobe.probes.sae.saelens import read_directory

        made = read_directory(folder)
        if model is not None:
            made = made.to(next(model.parameters()).device)
            made.check(model, hook_name)
        elif hook_name is not None and hook_name != made.hook_name:
            raise ValueError(f"an autoencoder of {hook_name!r} was asked for; {folder} is of {made.hook_name!r}")
        return made

    @classmethod
    def bundled(cls, model_name: str, name: str | None = None) -> "SparseAutoencoder":
        """The autoencoder that comes with the bundled model; `name`: which (`bundled_saes`), None the first.

        Raises ValueError, with what there is, where there is none.
        """
        found = bundled_saes(model_name)
        chosen = next(iter(found), None) if name is None else name
        if chosen not in found:
            raise ValueError(
                f"the autoencoder {name or 'of'} {model_name} was asked for; bundled: {', '.join(found) or 'none'}; "
                "train one with train_sae, or load a folder"
            )
        return cls.load(found[chosen])

    def _normalized(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x as the encoder takes it, scale, shift); scale and shift are ones and zeros for "none"."""
        if x.shape[-1] != self.d_in:
            raise ValueError(
                f"the autoencoder of {self.hook_name!r} reads {self.d_in} numbers; it was given {x.shape[-1]}; give "
                "what the model has at that hook point"
            )
        x = x.to(self.W_enc.dtype)
        if self.normalize == "constant_norm_rescale":
            scale = self.d_in**0.5 / x.norm(dim=-1, keepdim=True)
            return x * scale, scale, torch.zeros_like(scale)
        if self.normalize == "layer_norm":
            shift = x.mean(-1, keepdim=True)
            scale = (x - shift).std(-1, keepdim=True)
            return (x - shift) / (scale + _EPS), scale, shift
        return x, x.new_ones(()), x.new_zeros(())

    def _times_decoder(self, features: Tensor) -> Tensor:
        if self.scale_by_decoder_norm:
            features = features / self.W_dec.norm(dim=-1).clamp(min=1e-8)
        return features @ self.W_dec


def bundled_saes(model_name: str) -> dict[str, Path]:
    """Folders of the autoencoders that come with a bundled model, by name; residual stream first. Empty if none do."""
    from strobe.models import zoo

    if model_name not in zoo.available():
        return {}
    found = sorted(p.parent.name for p in zoo.folder(model_name).glob("sae-*/cfg.json"))
    return {name: zoo.folder(model_name) / name for name in sorted(found, key=lambda n: "resid" not in n)}


def _check(sae: SparseAutoencoder) -> None:
    d_in, d_sae = sae.W_enc.shape
    tensors = {n: getattr(sae, n) for n in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
    expected = {"b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,), "threshold": (d_sae,)}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in expected and tuple(tensor.shape) != expected[name]:
            raise ValueError(
                f"W_enc is {d_in} by {d_sae}, so {name} has to be {expected[name]}; found {tuple(tensor.shape)}; give "
                "the weights of one autoencoder"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} of the autoencoder is not finite; look at its training, or load an earlier file")
    if sae.kind not in get_args(Kind):
        raise ValueError(f"kind {sae.kind!r} does not exist; there are {', '.join(get_args(Kind))}")
    if sae.kind == "topk" and not (sae.k is not None and 1 <= sae.k <= d_sae):
        raise ValueError(f"a TopK autoencoder of {d_sae} features was given k={sae.k}; give 1 to {d_sae}")
    if sae.kind in ("jumprelu", "batchtopk") and sae.threshold is None:
        raise ValueError(f"a {sae.kind} autoencoder needs `threshold`, one for each feature; none was given")
    if sae.normalize not in get_args(Norm):
        raise ValueError(f"normalize {sae.normalize!r} does not exist; there are {', '.join(get_args(Norm))}")
