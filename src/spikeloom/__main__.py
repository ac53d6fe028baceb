from spikeloom.cli import main

main()
