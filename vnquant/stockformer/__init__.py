"""Stockformer: a small encoder per symbol, computed as one stack of models.

Every tensor carries a leading model axis M, and all parameters of a model are one row of a
``[M, P]`` matrix. The single model is the stack with M = 1; there is no other code path.
"""
