"""A filter that finds misspelt names."""

from difflib import get_close_matches

_ALIKE = 0.75  # of difflib's ratio: `worker` and `workers` have 0.92, `subnet` and `subnet_id` 0.8


def misspelt(given, known):
    """The names `given` that are not `known`, each with the one that it resembles; the rest is of others."""
    found = {}
    for name in given:
        alike = get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if alike and name not in known:
            found[name] = alike[0]
    return found


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        """By their names."""
        return {"zmqmr_misspelt": misspelt}
