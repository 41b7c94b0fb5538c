"""An agent over HTTP: real servers, in this process or in one of their own, and clients that nobody here wrote."""
