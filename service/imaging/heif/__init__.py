"""AVIF and HEIC, the formats in HEIF containers: what is checked before their decoders run."""
