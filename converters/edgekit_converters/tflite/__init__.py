"""The TFLite converter: captured student -> one `.tflite` file with a ladder of signatures, in fp32 and int8.

    Captured --lower--> litert-torch's flatbuffer --passes--> fp32 file --resolve--> Recipe --apply--> int8 file

`converter.TfliteConverter` is the door; each step behind it is a module of its own.
"""
