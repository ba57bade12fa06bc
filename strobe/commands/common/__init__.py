"""What commands share: options, models and outputs as they are asked for, progress on a terminal."""
