"""What can be measured offline: codec quality, the instrument that is heard, Fréchet distance of codec latents."""
