"""What the program is made of beside its own code: which packages, which licences, which known holes.

``python -m supply licences|sbom|audit``; the Makefile has a target for each. Reads the lock files, and asks
tools that are locked themselves. Nothing here is part of the program.

From the bottom up, each importing only what stands before:

* ``locks``: a lock file as values
* ``licences``: the list of licences, and which are accepted
* ``sbom``: the bill of materials
* ``audit``: known vulnerabilities, or the plain word that nobody could be asked
"""
