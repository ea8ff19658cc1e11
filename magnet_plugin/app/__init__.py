"""What a person sees in a browser: the demo and its page."""
