"""The fake EC2 of a testbed, in its hub: `python -m testbed.fakeaws FOLDER`.

moto's server, what moto lacks (testbed.moto_gaps), a metadata service that answers per caller, and a
hypervisor: every instance that the API starts becomes a real host at the instance's private address, and
every instance that it stops or terminates loses it.
"""

import os
import sys
import threading
from pathlib import Path

from testbed.bed import REGION, Testbed

from zmqmr.worker.spawn import die_with_parent


def main(folder: Path) -> None:
    """Serve until killed, or until the testbed's process ends."""
    die_with_parent(os.getppid())
    # moto reads these when it is imported, so the imports below follow them.
    os.environ.update(
        MOTO_AMIS_PATH=str(folder / "amis.json"),
        MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="true",
        MOTO_ENABLE_KEYPAIR_VALIDATION="true",
        AWS_REGION=REGION,
    )
    from testbed import moto_gaps

    moto_gaps.write_images(folder / "amis.json")
    import moto.server
    from testbed.hypervisor import Hypervisor
    from testbed.metadata import serve_metadata

    hypervisor = Hypervisor(Testbed(folder))
    moto_gaps.fill(folder, hypervisor.console)
    threading.Thread(target=hypervisor.run, daemon=True).start()
    threading.Thread(target=serve_metadata, daemon=True).start()
    moto.server.main(["-H", "0.0.0.0", "-p", "5000"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
