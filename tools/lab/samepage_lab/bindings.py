"""libvirt's Python modules, or None where python3-libvirt is not installed.

The package can thus be imported on any machine; `availability.check_available` says what lacks.
"""

try:
    import libvirt
    import libvirt_qemu
except ImportError:
    libvirt = libvirt_qemu = None
else:
    # libvirt prints every error to stderr as well as raising it, unless told otherwise.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)

__all__ = ["libvirt", "libvirt_qemu"]
