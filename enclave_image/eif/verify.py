"""Whether an image is one to run: whole, read by everybody in the same way, signed where it says so, and the expected.

May not: believe metadata, or a signature made by an unexpected certificate: who signs is PCR8, and the caller's to say.
Rule: the steps are numbered in `verify_image`; AWS, Nitro Enclaves user guide, "Cryptographic attestation".
"""

from __future__ import annotations

import datetime
import hmac
from collections.abc import Mapping

from .codes import ImageCode, ImageError
from .describe import Description, describe_image
from .reader import EifImage
from .writer import crc_error


def verify_image(
    image: EifImage,
    *,
    pcrs: Mapping[int, bytes] | None = None,
    signed: bool = False,
    at: datetime.datetime | None = None,
) -> Description:
    """Check an open image; its description.

    `pcrs` are the values expected (index 0, 1, 2, 8); `signed` refuses an image without a signature; `at` is a time at
    which the signing certificate must be valid. Raises `ImageError`.
    """
    # 1. Its structure was checked when it was opened; here: nothing that two readers could take in two ways.
    for one in image.irregularities:
        raise one
    # 2. Its small sections are well-formed, and it is measured.
    described = describe_image(image)
    # 3. The CRC.
    if not described.crc_holds:
        raise crc_error(image, described.measurements.crc)
    # 4. The signature, where there is one or one is asked for.
    if described.signature_problem is not None:
        raise described.signature_problem
    if signed and described.signature is None:
        raise ImageError(ImageCode.NOT_SIGNED, "the image is not signed: sign it with `teactl image sign`")
    # 5. The signing certificate's time.
    if at is not None and described.signature is not None:
        certificate = described.signature.certificate
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise ImageError(
                ImageCode.CERTIFICATE,
                f"the signing certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
                f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, not at {at:%Y-%m-%d %H:%M}",
            )
    # 6. The measurements that the caller expects.
    found = described.pcrs()
    for index, expected in sorted((pcrs or {}).items()):
        value = found.get(index)
        if value is None:
            raise ImageError(ImageCode.PCR, f"the image has no PCR{index}, expected {expected.hex()}")
        if not hmac.compare_digest(value, expected):
            raise ImageError(ImageCode.PCR, f"PCR{index} is {value.hex()}, expected {expected.hex()}")
    return described
