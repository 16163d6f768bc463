"""The enclave image format (EIF): read, measure, sign and write version 4; read versions 2 and 3.

May not: know what is in a ramdisk. Rule: AWS, aws-nitro-enclaves-image-format, README.md ("Enclave image file format").
"""
