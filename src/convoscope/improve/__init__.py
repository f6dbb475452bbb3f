"""How would it be improved? Two networks side by side, what is wrong with one, and a better one with proof.

Every function here returns findings (:class:`~.finding.Finding`): found on one half of the pictures, tested on the
other, with an interval and the next command. "Nothing found" is an answer.
"""
