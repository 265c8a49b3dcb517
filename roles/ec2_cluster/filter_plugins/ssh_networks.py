"""Filters for the networks that may use ssh."""

import ipaddress

# Wider ones are no operator's own network.
_WIDEST = {4: 16, 6: 32}


def network_fault(text, may_be_wide=False):
    """What is wrong with a network, in words that say what to do; empty when nothing is."""
    _, _, prefix = text.partition("/")
    if not prefix.isascii() or not prefix.isdecimal():
        return "give a network with its prefix length, such as 203.0.113.7/32"
    try:
        network = ipaddress.ip_network(text, strict=False)
        exact = network.network_address == ipaddress.ip_interface(text).ip
    except ValueError:
        return "that is no network: give one such as 203.0.113.7/32 or 2001:db8::/64"
    if getattr(network.network_address, "scope_id", None):
        return "EC2 knows no interfaces of yours: give a network without %"
    if network.prefixlen < _WIDEST[network.version] and not may_be_wide:
        return (
            "that is the whole world or a large part of it; give your own network, at most a"
            f" /{_WIDEST[network.version]}, or say -e i_accept_public_ssh=true"
        )
    return "" if exact else f"it has bits beyond its prefix: say {network}"


def network(text):
    """A network as EC2 writes it."""
    return str(ipaddress.ip_network(text))


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        """By their names."""
        return {"zmqmr_network": network, "zmqmr_network_fault": network_fault}
