"""Privacy of patients: what is released, what it costs, and the noise that protects it."""
