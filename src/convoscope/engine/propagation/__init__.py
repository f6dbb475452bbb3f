"""Scores handed back by rules of their own: LRP, Deep SHAP, attention."""
