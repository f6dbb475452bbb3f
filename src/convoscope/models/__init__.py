"""Networks: opened, wrapped, called, and what they return."""
