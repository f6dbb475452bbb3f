"""The report: explanations and a survey of one network, as one file to send to somebody."""
