"""From a file to an answer: find faces in a video, follow each person, crop as in training, classify windows of time.

::

    faces.py       detectors: frames -> boxes with five landmarks, alternatives by name
    tracking.py    boxes of many moments -> people
    cropping.py    a person's boxes -> one smoothed square -> pixels as the datasets' own crops
    footage.py     a file -> people: the first pass over the video
    windows.py     people -> clips for a net, one pass, bounded memory
    recognition.py a file and a model -> a table of segments
    drawing.py     timelines, contact sheets, annotated videos
    command.py     `dfer-zoo recognize`
    labels.py      CREMA-D's and RAVDESS' file names -> label, speaker, fold
    dataset.py     `dfer-zoo crop`: labelled videos -> a folder that `Clips` reads
"""
