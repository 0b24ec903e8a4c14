"""The first box of files in the ISO base media format, which tells HEIF from AVIF."""

_BRANDS_AT_MOST = 4096


def brands_of(data: bytes) -> tuple[bytes, ...]:
    """The brands in the file type box, the major one first; none if the file does not begin with one."""
    if data[4:8] != b"ftyp":
        return ()
    size = min(int.from_bytes(data[:4]), _BRANDS_AT_MOST, len(data))
    return (data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4)))
