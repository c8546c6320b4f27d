"""What ``snn-dendrite demo`` trains and draws."""
