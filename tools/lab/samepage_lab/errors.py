"""What can go wrong in a lab, in two kinds that callers treat differently."""


class LabError(RuntimeError):
    """A command on a lab failed; the message says what failed and how to mend it."""


class LabUnavailable(LabError):
    """This machine cannot run a lab at all (no root, no namespaces, a package is missing).

    Tests skip with this reason; see `availability.require_lab`.
    """
