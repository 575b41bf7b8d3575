"""What a data set is: `index.json`, tars, the members of an object. Imports no torch."""
