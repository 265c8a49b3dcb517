"""A lookup of what was given with -e."""

DOCUMENTATION = r"""
name: zmqmr_given
author: zmqmr
short_description: The names of the variables that were given with -e
description:
  - Ansible passes variables on whatever their names are. With this a playbook can tell one that is misspelt.
"""
RETURN = r"""
_raw:
  description: The names, sorted.
  type: list
  elements: str
"""

from ansible.plugins.lookup import LookupBase  # noqa: E402  Ansible wants the documentation first
from ansible.utils.vars import load_extra_vars  # noqa: E402


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms, variables=None, **kwargs):
        """The names."""
        return sorted(load_extra_vars(self._loader))
