"""What each study asks of which net, with which data: from runs and configs to rows of numbers."""
