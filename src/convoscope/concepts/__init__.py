"""Concepts: what a unit stands for (dissection), what a direction means (TCAV), what a class is made of (CRAFT).

Each answer has what makes it believable: held-out pictures, an interval, a baseline of random labels or random sets.
"""
