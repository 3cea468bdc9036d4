"""What is checked on a host, and on the way to a controller, before anybody relies on it."""
