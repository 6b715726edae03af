"""What the commands other than run and train do, without their options and printing: compare, import, predict, export, share."""
