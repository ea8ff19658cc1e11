"""The paper's recipes and ablations, at the paper's scale."""
