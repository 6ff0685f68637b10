"""What a network is: `zoo` names them, `architecture` lists the axes, `resnet` builds them."""
