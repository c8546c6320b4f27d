"""norse as a third host of snn-dendrite-plugin: the announcement; the adapter is in :mod:`.adapter`."""

from snn_dendrite_plugin import hookimpl


@hookimpl
def snn_dendrite_register_adapters(register):
    register(
        name="norse",
        host="norse",
        trigger="norse.torch",
        target="snn_dendrite_norse.adapter:adapter",
        summary="models as modules of norse.torch: <Name> takes sequences, <Name>Cell single steps",
    )
