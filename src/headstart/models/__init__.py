"""Networks: input contract, backbone, heads, and the bundle that holds them."""
