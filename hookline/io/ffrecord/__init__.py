"""FFRecord: many records, or a whole folder, in a file; read by number, by path, or through ``ffrecord://``."""

from hookline.io.ffrecord.errors import ChecksumError, FFRecordError
from hookline.io.ffrecord.folder import PackReport, pack_folder, unpack_folder
from hookline.io.ffrecord.packed import PackedFolder
from hookline.io.ffrecord.parts import dump
from hookline.io.ffrecord.reader import FileReader
from hookline.io.ffrecord.writer import FileWriter
from hookline.io.ffrecord_handler import FFRecordHandler, register_ffrecord_handler, unregister_ffrecord_handlers

__all__ = [
    "ChecksumError",
    "FFRecordError",
    "FFRecordHandler",
    "FileReader",
    "FileWriter",
    "PackReport",
    "PackedFolder",
    "dump",
    "pack_folder",
    "register_ffrecord_handler",
    "unpack_folder",
    "unregister_ffrecord_handlers",
]
