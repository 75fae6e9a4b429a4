"""The gate: small tasks measured again and compared with what they gave when their baselines were learned."""
