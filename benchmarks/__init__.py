"""Programs that measure the product from outside; they are no part of it."""
