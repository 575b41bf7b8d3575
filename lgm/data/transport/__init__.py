"""Files of a data set, from a folder, a web server, S3 or a command."""
