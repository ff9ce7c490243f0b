"""What a policy is worth: scores with intervals, beside random, classical policies and the optimum."""
