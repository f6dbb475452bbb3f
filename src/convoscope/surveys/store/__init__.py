"""What a survey keeps, and how nothing of it is lost."""
