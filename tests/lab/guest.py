# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""The content of a guest image, and the seed that makes a particular machine of it.

Name, addresses and keys are not in the image. They come as a seed: an archive that is unpacked over the
root file system at the first boot, before systemd starts. A virtual machine finds it at the end of its
initial RAM disk.
"""

from __future__ import annotations

import io
import tarfile

# The image contains the role's packages, so that a play does not install them and needs no internet.
_PACKAGES = (
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "procps",
    "openssh-server",
    "sudo",
    "ca-certificates",
    "curl",  # the README shows it
    "python3",
    "python3-apt",
    "python3-bpfcc",
    "python3-prometheus-client",
    "libbpf1",
    "bpftool",
    "xdp-tools",  # test_neighbours
    "nftables",
    "iptables",  # test_effort compares a run of the role with it
    "etcd-client",
    "etcd-server",
    "nginx",
    "gunicorn",
    "python3-flask",
    "python3-jsonschema",
    "rabbitmq-server",
    "python3-amqp",
    "initramfs-tools",
    "zstd",
)

LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)

SEED = "lab-seed.tar"

_UNPACK_SEED = f"""#!/bin/sh
[ "${{1-}}" = prereqs ] && exit 0
[ -e /{SEED} ] && [ ! -e "${{rootmnt}}/etc/lab-seeded" ] || exit 0
chroot "${{rootmnt}}" /bin/tar -x -C / </{SEED}
"""

# Needed while packages are installed.
EARLY_FILES = {
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=zstd\nRUNSIZE=20%\n",
    "usr/share/initramfs-tools/modules.d/lab": "virtio_pci\nvirtio_blk\nvirtio_net\next4\n",
    "etc/initramfs-tools/scripts/local-bottom/lab-seed": _UNPACK_SEED,
    # Two empty scripts in place of udev's: the list of modules alone finds the disk, seconds earlier.
    "etc/initramfs-tools/scripts/init-top/udev": "#!/bin/sh\nexit 0\n",
    "etc/initramfs-tools/scripts/init-bottom/udev": "#!/bin/sh\nexit 0\n",
    # No service may start inside the tree while it is built.
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}

# Drivers that take an emulated guest seconds to load and that it never uses. systemd-networkd asks for
# cfg80211 by name, so a blacklist alone would not stop it.
_UNUSED_MODULES = (
    "aesni_intel ahci button cfg80211 crc32_pclmul crct10dif_pclmul drm efi_pstore ghash_clmulni_intel"
    " i2c_i801 i2c_smbus iTCO_wdt joydev kvm kvm_amd kvm_intel lpc_ich pcspkr polyval_clmulni"
    " powernow_k8 psmouse serio_raw sha256_ssse3 sha512_ssse3 sg"
)

# Debian's own etcd, web server and RabbitMQ would start on every machine; the role fleet_node has units of its own.
_UNUSED_UNITS = (
    "etcd.service nginx.service rabbitmq-server.service epmd.service epmd.socket "
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer"
    " e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer"
    " getty@tty1.service serial-getty@ttyS0.service serial-getty@ttyAMA0.service"
    " modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service"
    " modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service"
    " dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount"
    " proc-sys-fs-binfmt_misc.automount systemd-binfmt.service"
    " systemd-hwdb-update.service systemd-logind.service systemd-networkd-wait-online.service"
    " systemd-network-generator.service systemd-pstore.service systemd-random-seed.service"
    " systemd-rfkill.socket systemd-sysusers.service systemd-update-utmp.service"
    " systemd-update-utmp-runlevel.service"
)

# An emulated machine has about six hundred devices. Units wait only for these.
_COLDPLUG = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --prioritized-subsystem=block,net --action=add \
  --subsystem-match=block --subsystem-match=net --subsystem-match=virtio
"""

FILES = {
    "etc/fstab": "# The root file system is mounted by the kernel's command line.\n",
    "etc/ssh/sshd_config.d/lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "PrintMotd no\n"
    ),
    "etc/modprobe.d/lab.conf": "".join(
        f"install {module} /bin/true\n" for module in _UNUSED_MODULES.split()
    ),
    "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": _COLDPLUG,
    "etc/sudoers.d/lab": "ops ALL=(ALL:ALL) NOPASSWD: ALL\n",
}

# Host keys come with the seed. If they were made here, all machines would share them.
SETUP = f"""
rm -f /usr/sbin/policy-rc.d /etc/ssh/ssh_host_* /etc/hostname
: >/etc/machine-id
useradd --create-home --shell /bin/bash ops
systemctl enable systemd-networkd.service ssh.service
systemctl mask {_UNUSED_UNITS}
"""


def packages(architecture: str) -> tuple[str, ...]:
    """All packages of an image, with the stock kernel of a Debian architecture."""
    return (*_PACKAGES, f"linux-image-{architecture}", f"linux-headers-{architecture}")


def seed(files: dict[str, tuple[str, int]]) -> bytes:
    """Pack a machine's own files (path below the root: text, mode) as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, (text, mode) in {**files, "etc/lab-seeded": ("", 0o644)}.items():
            _add_parents(tar, name)
            entry = tarfile.TarInfo(name)
            data = text.encode()
            entry.size, entry.mode = len(data), mode
            entry.uid = entry.gid = _owner(name)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def archive_for_initrd(packed: bytes) -> bytes:
    """The archive to append to an initrd, so that the seed is unpacked at the first boot."""
    return _cpio(SEED, packed)


def _add_parents(tar: tarfile.TarFile, name: str) -> None:
    """Add the one directory whose mode sshd checks; all others exist in the image."""
    parent = name.rpartition("/")[0]
    if parent.endswith(".ssh") and parent not in tar.getnames():
        entry = tarfile.TarInfo(parent)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o700
        entry.uid = entry.gid = _owner(name)
        tar.addfile(entry)


def _owner(name: str) -> int:
    """The uid of a file: files below home/ belong to `ops`, the image's only user."""
    return 1000 if name.startswith("home/") else 0


def _cpio(name: str, data: bytes) -> bytes:
    """A cpio archive ("newc") with one file, which the kernel accepts after another initrd."""
    end = _cpio_entry("TRAILER!!!", b"", 0)
    return _cpio_entry(name, data, 0o100600) + end


def _cpio_entry(name: str, data: bytes, mode: int) -> bytes:
    path = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, size, 4 device numbers, length of the name, checksum.
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
