"""What to run many times: data only. Each file says which config it varies, and how."""
