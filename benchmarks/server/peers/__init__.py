"""What users would pick instead: the same model and contract behind other servers, as their own documents show them."""
