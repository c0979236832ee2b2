"""EXTENDED COPY(LID1) from a disk LUN to a tape LUN, sent by PYSCSI over libiscsi.

usage: extended_copy.py iscsi://HOST:PORT/IQN/DISK iscsi://HOST:PORT/IQN/TAPE BLOCKS

The PYSCSI release on PyPI knows the operation code but has no class for the command, so it is made here on PYSCSI's own
SCSICommand. Prints the operating parameters that the array reports, as far as the test looks at them.
"""

import struct
import sys

import iscsi

# PYSCSI asks the binding for libiscsi's constants by their C names; this release of the binding keeps them in enums.
for enum in (iscsi.iscsi_session_type, iscsi.iscsi_header_digest, iscsi.scsi_xfer_dir):
    for member in enum:
        setattr(iscsi, member.name, member.value)

from pyscsi.pyiscsi.iscsi_device import ISCSIDevice
from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry
from pyscsi.pyscsi.scsi_cdb_testunitready import TestUnitReady
from pyscsi.pyscsi.scsi_command import SCSICommand
from pyscsi.pyscsi.scsi_enum_command import spc

RECORD = 65536


class ThirdPartyCopy(SCSICommand):
    """A 16-byte CDB of EXTENDED COPY or RECEIVE COPY RESULTS."""

    def __init__(self, opcode, service_action, list_identifier, dataout, allocation):
        SCSICommand.__init__(self, opcode, len(dataout), allocation)
        self.dataout[:] = dataout
        self.cdb = bytearray(struct.pack(">BBB7xLH", opcode.value, service_action, list_identifier, len(dataout) or allocation, 0))


def execute(device, command):
    device.execute(command)
    return command


def settle(device):
    """A new nexus reports its unit attentions first."""
    for _ in range(8):
        try:
            execute(device, TestUnitReady(spc.TEST_UNIT_READY))
            return
        except device.CheckCondition:
            pass
    raise SystemExit("the unit does not become ready")


def cscd(device, peripheral_device_type, parameters):
    """The unit's first designator (VPD 83h) as an identification descriptor CSCD, E4h."""
    inquiry = execute(device, Inquiry(spc.INQUIRY, evpd=1, page_code=0x83, alloclen=255))
    page = bytes(inquiry.datain)
    designator = page[4 : 8 + page[7]]
    return struct.pack(">BB2x", 0xE4, peripheral_device_type) + designator.ljust(24, b"\0") + parameters


def main():
    disk_url, tape_url, blocks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with ISCSIDevice(disk_url) as disk, ISCSIDevice(tape_url) as tape:
        settle(disk)
        settle(tape)
        limits = bytes(execute(disk, ThirdPartyCopy(spc.RECEIVE_COPY_RESULTS, 3, 0, b"", 256)).datain)
        codes = limits[44 : 44 + limits[43]]
        assert 0x00 in codes and 0x10 in codes and 0xE4 in codes, f"no disk to tape here: {codes.hex()}"
        descriptors = cscd(disk, 0, struct.pack(">BBH", 0, 0, 512)) + cscd(tape, 1, b"\0\0\0\0")
        segments = b""
        for lba in range(0, blocks, 32768):
            count = min(32768, blocks - lba)
            segments += struct.pack(">BBHHHx", 0, 1, 0x14, 0, 1) + RECORD.to_bytes(3, "big") + struct.pack(">xxHQ", count, lba)
        segments += struct.pack(">BBHHHB3s", 0x10, 0, 8, 0, 1, 0, (1).to_bytes(3, "big"))
        header = struct.pack(">BBHLLL", 1, 0x11, len(descriptors), 0, len(segments), 0)
        execute(disk, ThirdPartyCopy(spc.EXTENDED_COPY, 0, 0, header + descriptors + segments, 0))
        print(f"copied {blocks} blocks; the array lists segment and CSCD types {codes.hex()}")


main()
