"""What each symbol of a sequence costs one who knows the hidden Markov model: the floor of any prediction.

The forward algorithm (Rabiner 1989) keeps p(state | symbols so far); a symbol costs -ln of its probability under that,
in nats. Of sequences that the model itself emits this is the least that any predictor can pay on average.
"""

import numpy as np
from jaxtyping import Float64, Int64


def symbol_costs(
    symbols: Int64[np.ndarray, "batch time"],
    transition: Float64[np.ndarray, "states states"],
    emission: Float64[np.ndarray, "states symbols"],
    start: Float64[np.ndarray, " states"],
) -> Float64[np.ndarray, "batch time"]:
    """-ln p(symbol | symbols before it), infinite for one that cannot come.

    `transition` [from, to] and `emission` are probabilities, rows sum to 1; `start`: of the state that emits the first.
    """
    belief = np.broadcast_to(start, (len(symbols), len(start)))
    costs = np.empty(symbols.shape)
    for t in range(symbols.shape[1]):
        joint = belief * emission[:, symbols[:, t]].T
        total = joint.sum(1)
        with np.errstate(divide="ignore"):
            costs[:, t] = -np.log(total)
        # After a symbol that cannot come nothing is known of the state.
        belief = np.where(total[:, None] > 0, joint / np.where(total > 0, total, 1)[:, None], start) @ transition
    return costs
