"""A small service on a board, through which a workstation profiles there.

    workstation                                   board
    edgekit profile B --device tcp://HOST:PORT -> edgekit agent          (a token, or certificates on both sides)
    edgekit profile B --device ssh://USER@HOST -> the same over ssh's own pipes, there for this one profile

    Hello   -> Welcome          versions, machine, limits
    Offer   -> Need             the files of a bundle by sha256; only those the board lacks
    Piece.. -> Stored           their bytes, checked on arrival
    Start   -> Step.. Alive..   a job in a limited process of its own
            -> Done             measurement documents
    Calibrate -> Step.. Alive.. the device measures itself (`edgekit devices --calibrate --device ...`)
            -> Calibrated       its profile and predictor
    any time   Failure          what is refused or broken; the agent stays usable

Only data crosses: names, numbers, graph files. The words are `wire.py`; nothing in them names a program to run.
"""
