"""What a training leaves behind: adapters, merged weights, cards."""
