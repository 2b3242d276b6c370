"""The error classes, for the tests that compare them with the contract, the documentation and the dashboard."""

from __future__ import annotations

from wxauth import errors

#: Inner nodes of the tree, and the error of the start. No request is answered with them. The root stands for a bug.
NOT_ANSWERED = {errors.ConfigurationError, errors.CredentialError, errors.RequestError}


def subclasses(root: type[errors.WxAuthError]) -> set[type[errors.WxAuthError]]:
    """Return `root` and all classes below it."""
    return {root}.union(*map(subclasses, root.__subclasses__()))


def answered() -> set[type[errors.WxAuthError]]:
    """Return every error class that a request can be answered with as a problem. Those of OAuth have another form."""
    return subclasses(errors.WxAuthError) - NOT_ANSWERED - subclasses(errors.OAuthError)
