"""An image file, whatever it is called and however it is packed: its name, packing and size."""
