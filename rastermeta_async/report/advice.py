"""Say what to do about each kind of error of a row."""

from __future__ import annotations

_ADVICE = {
    "RasterioIOError": "Look at one with gdalinfo: is it damaged, cut short, or no raster at all? "
    "Fetch it again, or leave such names out with --suffix.",
    "FileNotFoundError": "The file is gone, or its name was given wrongly. --update --prune drops "
    "such rows.",
    "PermissionError": "Get the right to read it, then run extract --retry-failed.",
    "Timeout": "The disk or the store did not answer in time. Run extract --retry-failed, with a "
    "larger --timeout where files are slow.",
    "Crash": "GDAL crashed on this file, as other programs may. Fetch it again, or remove it.",
    "Changed": "The file changed while it was read. Run extract --retry-failed when it is still.",
    "Offline": "The content is on tape. Recall the files, then run extract --retry-failed.",
    "NotAFile": "Leave it out of the paths.",
    "NotWrittenToTheEnd": "The file was not written to its end. Make it again.",
    "NotReadInStores": "This format is only read from disks. Copy the files to one.",
    "PartlyRead": "The header was read, but not all of it; the message says what is missing.",
    "AccessDenied": "Give credentials that may read the store (rastermeta help stores).",
    "NoCredentials": "Set up credentials of the store (rastermeta help stores).",
    "ExpiredToken": "Renew the credentials, then run extract --retry-failed.",
    "WrongRegion": "Name the bucket's --region, then run extract --retry-failed.",
    "NoBucket": "There is no such bucket: correct the paths.",
    "NotFound": "The object is gone, or its URL was given wrongly.",
    "Throttled": "The store wanted fewer requests. Run extract --retry-failed.",
    "UnicodeDecodeError": "Encode the URL as UTF-8.",
}

_AGAIN = "It may have passed: run extract --retry-failed."
_PASSING = frozenset({"OSError", "Connection", "NameResolution", "ServerError", "TLS"})
_UNKNOWN = "Look at one of the files: rastermeta show FILE."


def advice_on(kind: str) -> str:
    """Return what to do about an error of this kind (column `error_type`)."""
    return _AGAIN if kind in _PASSING else _ADVICE.get(kind, _UNKNOWN)
