"""What this package offers. Targets are names, so nothing heavy is imported before a host needs the neuron or layer."""

from snn_dendrite_plugin import hookimpl


@hookimpl
def snn_dendrite_register_models(register):
    register(name="QIF", target="sample_neurons.qif:QIF", summary="quadratic integrate-and-fire neuron")
    register(name="CLIF", target="sample_neurons.clif:CLIF", summary="complementary leaky integrate-and-fire neuron")


@hookimpl
def snn_dendrite_register_layers(register):
    register(name="SignedLinear", target="sample_neurons.signed:SignedLinear", summary="each input excites or inhibits")
