"""How well the server keeps to RFC 6455, judged from outside by Autobahn's fuzzing client."""
